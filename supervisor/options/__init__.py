"""What the user asks for: options of a command line and keywords of a call, made into one `Request`.
Nothing is written and nothing is started here. Below it are core/terms and system alone.
"""
