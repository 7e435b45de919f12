"""The bytes of the plan: one line for every job ever planned. No function of the user's is called
here.
"""
