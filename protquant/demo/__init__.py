"""The embedded demo model: its weights, its example, and the code that trained it.

It has memorized the 50 reference chains: for trying and measuring quantization, not for science.
"""
