"""Signed statements: what is in force in a box, and who may say so. Pure: bytes and time in, values out.

The administrator's tool makes them, `config` keeps them, and every domain that acts upon one looks at it itself.
"""
