//! Round to nearest: every weight to the value of its group's grid that is nearest to it.

use super::quantizer::{Quantizer, Rounded, checked, finish, nearest};
use crate::Result;
use crate::criteria::{Evidence, Needs};
use crate::quantize::CodeGrid;

/// Round to nearest (RTN). Needs no data. The steps span the weights of a group ([`CodeGrid::fit`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rtn;

impl Quantizer for Rtn {
    fn name(&self) -> &str {
        "rtn"
    }

    fn needs(&self) -> Needs {
        Needs::none()
    }

    fn quantize(&self, layer: &Evidence<'_>, grid: CodeGrid) -> Result<Rounded> {
        let (weight, group) = checked(layer, grid)?;
        let steps = grid.fit_all(&weight)?;
        let codes = nearest(&weight, grid, group, &steps);
        finish(layer, grid, codes, &steps, layer.mask.cloned())
    }
}
