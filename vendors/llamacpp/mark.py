"""What marks a worker: a process that runs one model for another, and may fall with it."""

MARK = "LLMDISPATCHER_WORKER"
"""Set in a worker's environment. One that asks for a worker of its own was started wrongly, as a
frozen application is that does not look at its arguments."""
