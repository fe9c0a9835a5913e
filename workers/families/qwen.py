"""Qwen, Llama and everything Ollama-like: the plain OpenAI-compatible way."""

from __future__ import annotations

from workers.families.generic import Behaviour

behaviour = Behaviour
