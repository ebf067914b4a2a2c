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
# One of each further module of timm: attention, mixers and states, what the list above has only as convolutions, and NASNet.
_TIMM_MODULES: Final = _words("""
beit_base_patch16_224 cait_xxs24_224 coat_lite_tiny convit_tiny cpubone_nano crossvit_tiny_240 cspnext_tiny deepseek_vit_412m
deit_tiny_distilled_patch16_224 efficientformerv2_s0 efficientvim_m1 eva02_tiny_patch14_224 fasternet_t0 gcvit_xxtiny gemma4_vit_167m
hiera_tiny_224 hieradet_small iformer_t lcnetv2_small lowformer_b0 gmlp_ti16_224 resmlp_12_224 mixer_s32_224 mobilenetv5_base mvitv2_tiny
naflexvit_base_patch16_gap nasnetalarge nest_tiny nextvit_small pit_ti_224 pnasnet5large qwen3_vit_88m legacy_seresnet18 sequencer2d_s shvit_s1
swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224 tiny_vit_5m_224 tnt_s_patch16_224 twins_svt_small twins_pcpvt_small
vit_tiny_patch16_224 vit_tiny_r_s16_p8_224 vit_srelpos_small_patch16_224 samvit_base_patch16_224 vitamin_small_224 volo_d1_224
xcit_nano_12_p16_224 convformer_s18 caformer_s18 maxvit_rmlp_pico_rw_256
""")

# What packages for one application build.
_APPLICATIONS: Final = {
    "ultralytics": _words("yolov8n yolo11n yolov10n yolo12n yolov8n-seg yolov5n yolov3-tiny yolov9t yolo26n yolo11n-pose yolo11n-obb yolo11n-cls rtdetr-resnet50"),
    "monai": _words("unet3d segresnet3d dynunet swin_unetr attention_unet unetr vnet highresnet"),
    "segmentation_models_pytorch": _words("Unet PSPNet UnetPlusPlus UPerNet FPN DeepLabV3Plus PAN MAnet Linknet Segformer"),
    "transformers": _words("segformer levit poolformer clip_vision dpt swin2sr convnextv2 wav2vec2 hifigan mobilenet_v1 glpn sam_encoder yolos dinov3 videomae ast wavlm clap_audio textnet whisper encodec dac univnet detr deformable_detr rt_detr vitpose depth_anything"),
    "diffusers": _words("vae_decoder vae_encoder autoencoder_tiny autoencoder_dc unet2d unet_condition dit"),
}  # fmt: skip

NAMES: Final = {
    "torchvision": tuple(
        f"torchvision/{n}" for n in (*_CLASSIFIERS, *SEGMENTATION, *VIDEO, *DETECTION, *_SIZES)
    ),
    "timm": tuple(f"timm/{n}" for n in (*_TIMM, *_TIMM_MODULES)),
    **{package: tuple(f"{package}/{n}" for n in names) for package, names in _APPLICATIONS.items()},
}
