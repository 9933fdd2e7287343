"""Shortcut functions of x and the branch's output F(x) (He et al. 2016, eq. 1; 2016b, section 3; and since).

To add one without weights, register a function `f(x, fx)`: x is the block's input after its adapter, fx the branch's
output, both [B, channels, …]; the result has the same shape. To add any other, register a factory `(channels,
arguments…) -> nn.Module` whose module has `forward(x, fx)`. Further arguments have defaults, and are set in a spec as
`name:key=value`. A module with tensors of its own may define `initialise(generator_for)` (see init.py). Random maps are
buffers that are drawn there once, from a stream with the buffer's full name, so every block and every seed has its own.
No module draws a number in `forward`: one that needs some has `draw(generator, batch_size)`, and reads its `noise`.

In networks of images a shortcut may carry several streams between blocks, x being [B, streams, channels, H, W] (Zhu
et al. 2024). Two things make it so, both optional:

* `read(x)` returns what the branch is given of the streams, [B, channels, H, W]; without it the branch is given x. The
  channels are those of the block's input, which where a stage begins are fewer than the module was made for.
* `streams` is how many copies of its output the stem makes; 1 where absent.

`forward` then takes x with all streams and returns as many, or more: a shortcut may add a stream in each block, and so
keep the outputs of all earlier ones. The last block's streams are summed. Adapters treat each stream alike.

A factory may carry attributes that studies and tests read, so that neither needs its name:

* `reads_x = False`: x is left out, so the block gets no adapter.
* `kind`: constant, fixed, learned, gated, noisy or fitted; a study compares those that have one.
* `examples`: texts of arguments worth comparing, such as ("bias=0", "bias=-6"); the defaults where absent.
* `transform`: the transformation of a trained network (training/initial.py) that gives it its values.

The first line of a docstring is what `resx shortcuts` prints: the formula, words, the source, the parameters of a
block of C channels. All that is learned decays like any other weight. No step draws a number or reads one back, and
shapes do not depend on values, so each runs in a CUDA graph.
"""

# isort: off
from resx.model.shortcuts import sums, fixed, learned, gates  # noqa: F401 – importing makes its functions known,
from resx.model.shortcuts import directions, groups, streams, normalised  # noqa: F401 – in this order

# isort: on
from resx.model.shortcuts.contract import SHORTCUTS, GeneratorFor, mix, orthonormal

__all__ = ["SHORTCUTS", "GeneratorFor", "mix", "orthonormal"]
