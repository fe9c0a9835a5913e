"""DeepSeek: its reasoning is split like everybody's; what differs is data."""

from __future__ import annotations

from workers.families.generic import Behaviour

behaviour = Behaviour
