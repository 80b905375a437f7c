"""The one error whose message is meant for the user's eyes."""


class UserError(ValueError):
    """Something that the user can put right.

    Its message is shown as it stands, without a traceback, so it says what went wrong, where, what was given, what is
    allowed and how to fix it. Only the boundaries (the command line, the dashboard, the worker) translate it.
    """
