"""What the user asks for: options of a command line and keywords of a call, made into one `Request`.
No disk and no process. Below it are core/terms and system alone.
"""
