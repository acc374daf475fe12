"""protquant: post-training quantization of protein language and structure models.

The public functions, for scripts and notebooks; every command calls one of them:

>>> import protquant as pq
>>> model = pq.load("demo")  # doctest: +SKIP
>>> quantized, report = pq.quantize(model, "w8a8-pwlq")  # doctest: +SKIP
>>> pq.fold(quantized, pq.load_references()[0].sequence)  # doctest: +SKIP
"""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
