"""Objectives of published methods, a file each; a config names one; ``dphr`` and ``dense`` can ride on any."""

from __future__ import annotations

from training.errors import TrainingError
from training.methods.base import Method, ModelShape
from training.methods.csp_hd import CSPHD, CSPHDConfig
from training.methods.dense import Dense, DenseConfig
from training.methods.dphr import DPHR, DPHRConfig
from training.methods.nothing import Nothing, NothingConfig
from training.methods.sample4geo import Sample4Geo, Sample4GeoConfig
from training.methods.singeo import SinGeo, SinGeoConfig
from training.methods.unifygeo import UnifyGeo, UnifyGeoConfig

MethodConfig = Sample4GeoConfig | CSPHDConfig | SinGeoConfig | UnifyGeoConfig | NothingConfig

_METHODS: dict[type, type[Method]] = {
    Sample4GeoConfig: Sample4Geo,
    CSPHDConfig: CSPHD,
    SinGeoConfig: SinGeo,
    UnifyGeoConfig: UnifyGeo,
    NothingConfig: Nothing,
}


def make_method(config: MethodConfig, dphr: DPHRConfig | None, dense: DenseConfig | None, shape: ModelShape) -> Method:
    """Make the objective that a config names, with DPHR and dense matching on top when they have settings.

    Raises:
        TrainingError: the model lacks what the method needs; the message names the setting.
    """
    if isinstance(config, NothingConfig) and dphr is None and dense is None:
        raise TrainingError("method none teaches nothing alone: let something ride on it, such as dense={}.")
    method = _METHODS[type(config)](config, shape)
    if dphr is not None:
        method = DPHR(dphr, method)
    return method if dense is None else Dense(dense, method, shape)
