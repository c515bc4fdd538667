"""The language that people write filter rules in: read, checked, compiled to the filter's model, and reasoned about.

Nothing of this is ever imported in a domain.
"""
