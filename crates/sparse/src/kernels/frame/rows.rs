//! What a storage shows of its weights.

/// A weight in blocks of rows, each of which walks its tiles of columns.
///
/// # Safety
/// Implementations promise that the columns they give out are below `cols`, and the rows below the number of rows of the block.
pub(crate) unsafe trait Rows: Sync {
    /// `(out, in)`.
    fn dim(&self) -> (usize, usize);
    /// First row of each block, and one past the last row.
    fn blocks(&self) -> &[u32];
    /// Number of weights.
    fn len(&self) -> usize;
    /// Number of tiles of columns.
    fn tiles(&self) -> usize;
    /// First column of a tile.
    fn tile_start(&self, tile: usize) -> usize;
    /// Row within the block that the `slot`-th list of a tile belongs to.
    fn row(&self, block: usize, tile: usize, slot: usize) -> usize;
    /// Factor of all values of one list, 1 where values are floats.
    fn scale(&self, block: usize, tile: usize, slot: usize) -> f32;
    /// Calls `f(u, column within the tile, value)` for each weight of a list, where `u` runs through `0..U` in turn.
    fn each<const U: usize>(&self, block: usize, tile: usize, slot: usize, f: impl FnMut(usize, usize, f32));
}

/// A weight whose lists can be walked tile by tile of columns.
///
/// # Safety
/// Implementations promise rows below `dim().0`, and columns below the width of their tile.
pub(crate) unsafe trait Walk: Sync {
    /// `(out, in)`.
    fn size(&self) -> (usize, usize);
    /// Number of weights.
    fn weights(&self) -> usize;
    /// Number of tiles of columns.
    fn tiles_across(&self) -> usize;
    /// First column of a tile.
    fn start(&self, tile: usize) -> usize;
    /// Shows all weights of a tile, row by row.
    fn walk(&self, tile: usize, lists: &mut RowLists<'_>);
}

/// A list of weights of one row: their row and factor, columns within their tile, values.
pub(crate) type See<'f> = dyn FnMut((usize, f32), &[u32], &[f32]) + 'f;

/// Puts weights together into lists that a kernel sees as plain numbers, so that it is compiled once for all storages.
pub(crate) struct RowLists<'s> {
    see: &'s mut See<'s>,
    row: (usize, f32),
    columns: [u32; LIST],
    values: [f32; LIST],
    len: usize,
}

/// Weights of a list, at most.
const LIST: usize = 128;

impl<'s> RowLists<'s> {
    pub(crate) fn new(see: &'s mut See<'s>) -> Self {
        RowLists { see, row: (0, 1.0), columns: [0; LIST], values: [0.0; LIST], len: 0 }
    }

    /// The weights that follow are of this row, and have this factor.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize, scale: f32) {
        self.show();
        self.row = (row, scale);
    }

    /// A weight of that row, and its column within the tile.
    #[inline(always)]
    pub(crate) fn weight(&mut self, column: usize, value: f32) {
        if self.len == LIST {
            self.show();
        }
        self.columns[self.len] = column as u32;
        self.values[self.len] = value;
        self.len += 1;
    }

    /// Shows what is there.
    #[inline(never)]
    pub(crate) fn show(&mut self) {
        if self.len > 0 {
            (self.see)(self.row, &self.columns[..self.len], &self.values[..self.len]);
            self.len = 0;
        }
    }
}

// SAFETY: `Rows` promises the same.
unsafe impl<R: Rows> Walk for R {
    fn size(&self) -> (usize, usize) {
        self.dim()
    }

    fn weights(&self) -> usize {
        Rows::len(self)
    }

    fn tiles_across(&self) -> usize {
        self.tiles()
    }

    fn start(&self, tile: usize) -> usize {
        self.tile_start(tile)
    }

    #[inline(always)]
    fn walk(&self, tile: usize, lists: &mut RowLists<'_>) {
        for block in 0..self.blocks().len() - 1 {
            let (first, end) = (self.blocks()[block] as usize, self.blocks()[block + 1] as usize);
            for slot in 0..end - first {
                lists.row(first + self.row(block, tile, slot), self.scale(block, tile, slot));
                self.each::<1>(block, tile, slot, |_, column, value| lists.weight(column, value));
            }
        }
    }
}
