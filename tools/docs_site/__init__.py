"""What builds the documentation site beside mkdocs: pages that stand outside of docs/, and docstrings as they are
written here."""
