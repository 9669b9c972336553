"""The content-addressed storage that stock clients upload to, and read very large files from."""

from __future__ import annotations

from typing import Final

# Clients fetch larger files by xet or not at all; smaller ones they fetch as they are.
READS_OVER: Final = 50_000_000_000
