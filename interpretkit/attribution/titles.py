"""What methods are called by people: the names that their articles gave them."""

from __future__ import annotations

_NAMES = {
    "input_x_gradient": "input × gradient",
    "guided_backprop": "guided backpropagation",
    "deconvnet": "DeconvNet",
    "clear": "CLEAR",
    "smoothgrad": "SmoothGrad",
    "deeplift": "DeepLIFT",
    "lrp": "LRP",
    "patternnet": "PatternNet",
    "pattern_attribution": "PatternAttribution",
    "gradcam": "Grad-CAM",
    "gradcam_plus_plus": "Grad-CAM++",
    "layercam": "LayerCAM",
    "guided_gradcam": "guided Grad-CAM",
    "scorecam": "Score-CAM",
    "rise": "RISE",
    "lime": "LIME",
    "kernel_shap": "Kernel SHAP",
    "gradient_shap": "GradientSHAP",
    "deeplift_shap": "DeepLIFT SHAP",
    "tcav": "TCAV",
}


def method_title(name: str) -> str:
    """Return what a method of `METHODS` is called by people, such as ``Grad-CAM`` of ``gradcam``."""
    for place in ("layer_", "neuron_"):
        inner = name.removeprefix(place)
        if inner != name and inner in _NAMES:
            return place[:-1] + " " + _NAMES[inner]
    return _NAMES.get(name, name.replace("_", " "))
