"""Objectives of published methods, a file each; a config names one, and ``dphr`` can ride on any."""

from __future__ import annotations

from training.methods.base import Method, ModelShape
from training.methods.csp_hd import CSPHD, CSPHDConfig
from training.methods.dphr import DPHR, DPHRConfig
from training.methods.sample4geo import Sample4Geo, Sample4GeoConfig
from training.methods.singeo import SinGeo, SinGeoConfig
from training.methods.unifygeo import UnifyGeo, UnifyGeoConfig

MethodConfig = Sample4GeoConfig | CSPHDConfig | SinGeoConfig | UnifyGeoConfig

_METHODS: dict[type, type[Method]] = {
    Sample4GeoConfig: Sample4Geo,
    CSPHDConfig: CSPHD,
    SinGeoConfig: SinGeo,
    UnifyGeoConfig: UnifyGeo,
}


def make_method(config: MethodConfig, dphr: DPHRConfig | None, shape: ModelShape) -> Method:
    """The objective that a config names, with DPHR on top when it has settings.

    Raises:
        TrainingError: the model lacks what the method needs; the message names the setting.
    """
    host = _METHODS[type(config)](config, shape)
    return host if dphr is None else DPHR(dphr, host)
