"""A registrar (RFC 3261 §10.3): who may register is `authentication`, what stands registered is `location`.

Bytes and time in, answers and events out; opens no socket and reads no table.
"""
