"""What a person's mistake looks like. Imports nothing, so that the command line stays light."""


class UserError(ValueError):
    """A mistake at the border, told in one line: what came, what is allowed, what to do. Exit code 2."""
