"""llama.cpp, run directly: GGUF files served without a server to install.

``vendor`` is what the dispatcher sees; ``engine`` owns the thread that serves; ``native`` is the
only module that imports llama_cpp, and ``probe`` the only one that imports psutil. The rest is
pure: ``gguf`` and ``fit`` (files and memory), ``template`` and ``text`` (text to tokens and back).
"""
