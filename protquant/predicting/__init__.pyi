from protquant.predicting.contacts import contacts_fasta, predict_contacts
from protquant.predicting.fold_fasta import fold_fasta
from protquant.predicting.fold_run import FoldRun
from protquant.predicting.folding import fold, fold_batch
from protquant.predicting.merge_shards import merge_shards
from protquant.predicting.plan_folding import FoldingPlan, plan_folding
from protquant.predicting.plots import contact_figure, prediction_figure, save_figure
from protquant.predicting.shard import Shard

__all__ = [
    "FoldRun",
    "FoldingPlan",
    "Shard",
    "contact_figure",
    "contacts_fasta",
    "fold",
    "fold_batch",
    "fold_fasta",
    "merge_shards",
    "plan_folding",
    "predict_contacts",
    "prediction_figure",
    "save_figure",
]
