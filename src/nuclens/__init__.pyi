from nuclens.core import errors as errors
from nuclens.core.schema import ClassSchema as ClassSchema
from nuclens.core.slides import open_image as open_image
from nuclens.core.types import Frame as Frame
from nuclens.core.types import InstanceMap as InstanceMap
from nuclens.core.types import Instances as Instances
from nuclens.core.types import read_instances as read_instances
from nuclens.jobs.batch import BatchOptions as BatchOptions
from nuclens.jobs.batch import segment_files as segment_files
from nuclens.jobs.evaluate import evaluate as evaluate
from nuclens.jobs.pictures import Area as Area
from nuclens.jobs.segment import load_model as load_model
from nuclens.jobs.segment import segment as segment
from nuclens.jobs.source import EvaluateOptions as EvaluateOptions
from nuclens.report.overlay import overlay as overlay

__version__: str
__all__: list[str]
