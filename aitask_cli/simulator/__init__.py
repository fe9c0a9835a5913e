"""An OpenAI-compatible upstream that stands in for models, faults included."""
