"""What all HTTP dialects have in common, without any I/O.

``exchange`` is what the author of a dialect reads first; ``events`` cuts streams into messages,
``reading`` reads a stranger's JSON, and ``faults`` tells what an error answer stands for.
"""
