"""A policy behind a port, in languages that robots' clients speak already; nothing that arrives is ever unpickled."""
