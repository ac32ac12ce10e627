"""The configuration file: read with places, checked whole, turned into vendors and policies.

    node = reading.read(data, notes)          bytes -> values that know their line and column
    plan = settings.settings(node, notes)     values -> vendors, policies and the like
    notes.end()                               raises ConfigError with every problem at once

Nothing else in the package reads the environment for what a user configures. A secret is never in
a file: the file names the variable that holds it.
"""
