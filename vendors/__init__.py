"""How to talk to one kind of thing that answers. Knows ``llmdispatcher.models`` and nothing above.

``contract`` is the only module that the author of a vendor must read; ``scripted`` is the
shortest complete vendor.
"""
