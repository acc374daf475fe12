"""The embedded demo model: its weights, its example, and the code that trained it.

The model has memorized the 50 reference chains. It is for trying and measuring quantization, not for science.
"""
