"""The core: decides, and does nothing else. No I/O, no sleep, no thread, no LlamaIndex, no SDK.

Read `machine.py` first.
"""
