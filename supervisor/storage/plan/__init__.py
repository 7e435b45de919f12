"""The bytes of the plan: one line for every job ever planned. The user's functions must not be called here."""
