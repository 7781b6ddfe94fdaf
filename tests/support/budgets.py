"""Budgets of tests."""

from mmmedia.errors import LimitExceededError


class Purse:
    """A budget of so many bytes."""

    def __init__(self, left: int) -> None:
        self.left = left

    def charge(self, number_of_bytes: int) -> None:
        if number_of_bytes > self.left:
            raise LimitExceededError("used up")
        self.left -= number_of_bytes
