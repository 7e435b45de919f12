"""Which longhaul this is; the only place where it stands."""

from __future__ import annotations

VERSION = "0.1.0"
