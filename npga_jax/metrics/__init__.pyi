from . import images as images
from .images import psnr as psnr
from .images import ssim_map as ssim_map
from .perceptual import MIN_SIZE as MIN_SIZE
from .perceptual import LpipsFn as LpipsFn
from .perceptual import make_lpips as make_lpips
