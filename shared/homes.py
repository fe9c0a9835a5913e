"""The user's own places, as the XDG base directories have them. A relative one is none: it would be the directory's.

Source: https://specifications.freedesktop.org/basedir-spec/latest/
"""

from __future__ import annotations

import os
from pathlib import Path

from shared.errors import SettingFault


def data() -> Path:
    """Where data lie unless a setting says otherwise.

    Raises:
        SettingFault: there is no home directory.
    """
    found = _place("XDG_DATA_HOME", ".local/share")
    if found is None:
        raise SettingFault("there is no home directory", remedy="set HOME, or AITASK_DATA_DIR")
    return found


def env_file() -> Path | None:
    """The user's own file of settings, None without a home directory."""
    found = _place("XDG_CONFIG_HOME", ".config")
    return found / ".env" if found else None


def models_file() -> Path | None:
    """The user's own rows about models, None without a home directory."""
    found = _place("XDG_CONFIG_HOME", ".config")
    return found / "models.json" if found else None


def memory() -> Path | None:
    """Where is kept what the user has been told and what they trust, None without a home directory."""
    return _place("XDG_STATE_HOME", ".local/state")


def _place(variable: str, usual: str) -> Path | None:
    given = os.environ.get(variable, "")
    if os.path.isabs(given):
        return Path(given) / "aitask"
    home = os.path.expanduser("~")
    return Path(home) / usual / "aitask" if os.path.isabs(home) else None
