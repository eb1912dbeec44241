from .mesh_files import check_mesh_path as check_mesh_path
from .mesh_files import read_mesh as read_mesh
from .mesh_files import write_mesh as write_mesh
from .mesh_picture import error_colors as error_colors
from .mesh_picture import portrait_camera as portrait_camera
from .mesh_picture import render_mesh as render_mesh
from .splat_ply import write_ply as write_ply
from .video import write_video as write_video
