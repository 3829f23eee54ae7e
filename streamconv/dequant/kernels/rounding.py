"""The rounding at the end of every decoder."""

from ...quant.rounding import round_bf16 as round_bf16
from ...quant.rounding import round_f16 as round_f16
from ...quant.rounding import warm_up as warm_up
