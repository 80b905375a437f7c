"""The measured bars of docs/benchmarks.md. ``python -m bench NAME`` measures one, ``--json`` for machines, ``--quick`` for a first impression."""
