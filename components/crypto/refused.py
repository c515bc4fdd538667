"""The one error of an order that cannot be obeyed."""


class Refused(Exception):
    """Why an order was refused, in words that hold no secret; nothing of the order was done."""
