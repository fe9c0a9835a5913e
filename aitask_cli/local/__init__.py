"""The local default: PostgreSQL, Valkey and a background worker in the user's data directory."""
