"""Values only: what a request, a reply, an error and a model are.

Everything here is a frozen attrs class, an enum or an exception, validated when it is made and
never changed afterwards. Nothing here opens a file or a socket, starts a thread or knows a vendor:
this layer imports the standard library and attrs, and no other layer of llmdispatcher.
"""
