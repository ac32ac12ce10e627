"""Vendors that are reached over HTTP: who opens connections, and who serves requests over them.

``transport`` is the only module of the package that imports the HTTP client. What is said over a
connection is a dialect's, behind ``wire.exchange.Wire``.
"""
