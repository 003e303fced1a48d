"""EfficientNet-Lite: the convolutional network that classifies images on small machines (Tan and Le 2019,
arXiv:1905.11946; Lite: no squeeze-and-excitation, ReLU6 for swish, a stem and a last layer of fixed width).

transformers has no such class, so this is one of our own. Importing this file registers it: from then on AutoConfig,
AutoModel and AutoModelForImageClassification open its folders like any other. Letters: B images, C channels, H and W
places.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndNoAttention, ImageClassifierOutputWithNoAttention

LITE0 = (
    # kernel, stride, expansion, channels, repeats
    [3, 1, 1, 16, 1],
    [3, 2, 6, 24, 2],
    [5, 2, 6, 40, 2],
    [3, 2, 6, 80, 3],
    [5, 1, 6, 112, 3],
    [5, 2, 6, 192, 4],
    [3, 1, 6, 320, 1],
)
"""The stages of the smallest one, from the image to the head."""


class EfficientNetLiteConfig(PreTrainedConfig):
    """The shape of a network; by default that of Lite0."""

    model_type = "efficientnet-lite"

    image_size: int = 224
    num_channels: int = 3
    stem_channels: int = 32
    stages: tuple[list[int], ...] | list[list[int]] = LITE0
    hidden_size: int = 1280
    norm_eps: float = 1e-3
    dropout_rate: float = 0.2
    initializer_range: float = 0.02


class SameConv(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow's SAME does: an odd row or column falls at bottom and right.

    The weights were learned so; padding alike on both sides would shift every map of an even size by half a place.
    """

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(inner, outer, kernel, stride, groups=groups, bias=False)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        missing = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in images_BCHW.shape[-2:]]
        if any(missing):
            tall, wide = missing
            images_BCHW = functional.pad(images_BCHW, (wide // 2, wide - wide // 2, tall // 2, tall - tall // 2))
        return super().forward(images_BCHW)


class Block(nn.Module):
    """Expand each place to more channels, look around in each channel alone, project back; with a way past where input
    and output have one shape (the inverted residual of Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, expansion: int, norm_eps: float) -> None:
        super().__init__()
        wide = inner * expansion
        self.passes = stride == 1 and inner == outer
        self.expand = nn.Conv2d(inner, wide, 1, bias=False) if expansion > 1 else None
        self.expand_norm = nn.BatchNorm2d(wide, eps=norm_eps) if expansion > 1 else None
        self.depthwise = SameConv(wide, wide, kernel, stride, groups=wide)
        self.depthwise_norm = nn.BatchNorm2d(wide, eps=norm_eps)
        self.project = nn.Conv2d(wide, outer, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(outer, eps=norm_eps)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        x = images_BCHW
        if self.expand is not None and self.expand_norm is not None:
            x = functional.relu6(self.expand_norm(self.expand(x)))
        x = functional.relu6(self.depthwise_norm(self.depthwise(x)))
        x = self.project_norm(self.project(x))
        return x + images_BCHW if self.passes else x


class EfficientNetLitePreTrainedModel(PreTrainedModel):
    """What body and classifier share."""

    config_class = EfficientNetLiteConfig
    base_model_prefix = "efficientnet"
    main_input_name = "pixel_values"
    _no_split_modules = ("Block",)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """A start for weights that no file fills; called by transformers."""
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, self.config.initializer_range)
            nn.init.zeros_(module.bias)


class EfficientNetLiteModel(EfficientNetLitePreTrainedModel):
    """The body: from pixels to a map of features, and its mean."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        self.stem = SameConv(config.num_channels, config.stem_channels, 3, 2)
        self.stem_norm = nn.BatchNorm2d(config.stem_channels, eps=config.norm_eps)
        blocks, inner = [], config.stem_channels
        for kernel, stride, expansion, outer, repeats in config.stages:
            for repeat in range(repeats):
                blocks.append(Block(inner, outer, kernel, stride if repeat == 0 else 1, expansion, config.norm_eps))
                inner = outer
        self.blocks = nn.ModuleList(blocks)
        self.top = nn.Conv2d(inner, config.hidden_size, 1, bias=False)
        self.top_norm = nn.BatchNorm2d(config.hidden_size, eps=config.norm_eps)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> BaseModelOutputWithPoolingAndNoAttention:
        """`pixel_values` (B, 3, H, W) -> `last_hidden_state` (B, C, H / 32, W / 32) and `pooler_output` (B, C)."""
        x = functional.relu6(self.stem_norm(self.stem(pixel_values)))
        for block in self.blocks:
            x = block(x)
        x = functional.relu6(self.top_norm(self.top(x)))
        return BaseModelOutputWithPoolingAndNoAttention(last_hidden_state=x, pooler_output=x.mean(dim=(2, 3)))


class EfficientNetLiteForImageClassification(EfficientNetLitePreTrainedModel):
    """The body with a linear head on the mean of its features. It gives logits; a loss is the trainer's own affair."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        self.efficientnet = EfficientNetLiteModel(config)
        self.dropout = nn.Dropout(config.dropout_rate)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> ImageClassifierOutputWithNoAttention:
        """`pixel_values` (B, 3, H, W) -> `logits` (B, labels)."""
        features_BC = self.efficientnet(pixel_values).pooler_output
        return ImageClassifierOutputWithNoAttention(logits=self.classifier(self.dropout(features_BC)))


def register() -> None:
    """Make transformers' Auto classes know these; a second call changes nothing."""
    AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig, exist_ok=True)
    AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel, exist_ok=True)
    AutoModelForImageClassification.register(
        EfficientNetLiteConfig, EfficientNetLiteForImageClassification, exist_ok=True
    )


register()
