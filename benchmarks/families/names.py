"""NAMES: the networks, by the package that they come from. Knows nothing of torch."""

from __future__ import annotations

from typing import Final

__all__ = ["DETECTION", "NAMES", "SEGMENTATION", "VIDEO"]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Family by family.
_CLASSIFIERS: Final = _words("""
alexnet vgg11 vgg16 vgg16_bn vgg19_bn resnet18 resnet34 resnet50 resnet101 resnext50_32x4d resnext101_64x4d wide_resnet50_2
densenet121 densenet161 googlenet inception_v3 squeezenet1_0 squeezenet1_1 shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x2_0
mobilenet_v2 mobilenet_v3_small mobilenet_v3_large mnasnet0_5 mnasnet1_0 mnasnet1_3 efficientnet_b0 efficientnet_b1 efficientnet_b2
efficientnet_b3 efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_s efficientnet_v2_m efficientnet_v2_l
regnet_x_400mf regnet_x_1_6gf regnet_x_8gf regnet_y_400mf regnet_y_1_6gf regnet_y_8gf convnext_tiny convnext_small convnext_base
vit_b_32 vit_b_16 swin_t swin_v2_t maxvit_t
""")
SEGMENTATION: Final = _words("""
deeplabv3_mobilenet_v3_large deeplabv3_resnet50 deeplabv3_resnet101 fcn_resnet50 fcn_resnet101 lraspp_mobilenet_v3_large
""")
VIDEO: Final = _words("r3d_18 mc3_18 r2plus1d_18 s3d")
# Without what follows the heads, whose results have as many rows as there are objects.
DETECTION: Final = _words("""
ssdlite320_mobilenet_v3_large ssd300_vgg16 retinanet_resnet50_fpn fcos_resnet50_fpn fasterrcnn_mobilenet_v3_large_320_fpn
""")
# Further sizes of the same, last: whoever stops early has seen every family.
_SIZES: Final = _words("""
resnet152 resnext101_32x8d wide_resnet101_2 densenet169 densenet201 shufflenet_v2_x1_5 mnasnet0_75 regnet_x_800mf regnet_x_3_2gf
regnet_x_16gf regnet_y_800mf regnet_y_3_2gf regnet_y_16gf vgg11_bn vgg13 vgg13_bn vgg19 convnext_large swin_s swin_b swin_v2_s swin_v2_b
""")

# The lightest of each family, some of two: timm has 1371 names for some 90 architectures.
_TIMM: Final = _words("""
efficientnet_b0 tf_efficientnet_b0 tf_efficientnetv2_b0 mobilenetv3_large_100 tf_mobilenetv3_small_minimal_100 lcnet_050 mobilenetv4_conv_small
fbnetc_100 mixnet_s tf_mixnet_s rexnet_100 ghostnet_100 ghostnetv2_100 mnasnet_small spnasnet_100 hardcorenas_a tinynet_e
resnet18 resnet18d resnet26t seresnet18 ecaresnet26t skresnet18 resnest14d res2net50_14w_8s resnetrs50 resnetv2_50 resnetaa50 gcresnet33ts
nfnet_f0 nf_regnet_b0 dm_nfnet_f0 eca_nfnet_l0 regnetx_002 regnety_002 regnetz_005 repvgg_a0 repghostnet_050 hrnet_w18_small dla34 dla46_c
densenet121 convnext_atto convnextv2_atto convmixer_768_32 cspresnet50 cspdarknet53 darknet53 vovnet39a ese_vovnet19b_dw selecsls42b
inception_v4 inception_resnet_v2 inception_next_tiny xception41 legacy_xception dpn48b levit_conv_128s mobileone_s0 mobilevit_xxs mobilevitv2_050
edgenext_xx_small efficientformer_l1 efficientvit_b0 efficientvit_m0 fastvit_t8 repvit_m0_9 starnet_s1 hgnet_tiny hgnetv2_b0 tresnet_m visformer_tiny
poolformer_s12 coatnet_nano_rw_224 pvt_v2_b0 gernet_s bat_resnext26ts lambda_resnet26rpt_256 botnet26t_256 halonet26t sebotnet33ts_256
focalnet_tiny_srf davit_tiny rdnet_tiny mambaout_femto swiftformer_xs ghostnetv3_100 csatv2
""")

# What packages for one application build.
_APPLICATIONS: Final = {
    "ultralytics": _words("yolov8n yolo11n yolov10n yolo12n yolov8n-seg yolov5n yolov3-tiny"),
    "monai": _words("unet3d segresnet3d dynunet swin_unetr attention_unet"),
    "segmentation_models_pytorch": _words("Unet PSPNet UnetPlusPlus UPerNet FPN DeepLabV3Plus PAN MAnet Linknet Segformer"),
    "transformers": _words("segformer levit poolformer clip_vision dpt swin2sr convnextv2 wav2vec2 hifigan"),
    "diffusers": _words("vae_decoder"),
}  # fmt: skip

NAMES: Final = {
    "torchvision": tuple(
        f"torchvision/{n}" for n in (*_CLASSIFIERS, *SEGMENTATION, *VIDEO, *DETECTION, *_SIZES)
    ),
    "timm": tuple(f"timm/{n}" for n in _TIMM),
    **{package: tuple(f"{package}/{n}" for n in names) for package, names in _APPLICATIONS.items()},
}
