//! The way of a product into y.

use ndarray::ArrayRef2;

/// What is done to a product on its way into y.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Added to each token, one number an output.
    pub bias: Option<&'a [f32]>,
    /// Applied after the bias.
    pub activation: Option<fn(f32) -> f32>,
    /// Whether the result is added to what y holds, after the activation.
    pub accumulate: bool,
}

impl Epilogue<'_> {
    /// Writes neighbouring outputs of one token, the first of which is `row`.
    ///
    /// # Safety
    /// The entries lie within y, and nobody else uses them now.
    #[inline(always)]
    pub(crate) unsafe fn put(&self, y: Out, token: usize, row: usize, products: &[f32]) {
        if self.is_plain() && y.is_row_major() {
            // SAFETY: the caller vouches for these entries, which are neighbours.
            return unsafe { std::slice::from_raw_parts_mut(y.place(token, row).0, products.len()) }.copy_from_slice(products);
        }
        for (i, &product) in products.iter().enumerate() {
            // SAFETY: the caller vouches for these entries.
            let y = unsafe { y.at(token, row + i) };
            *y = if self.is_plain() { product } else { self.apply(*y, row + i, product) };
        }
    }

    /// Writes one output of neighbouring tokens, the first of which is `token`, whose entries lie side by side.
    ///
    /// # Safety
    /// The entries lie within y, which [`Out::is_column_major`], and nobody else uses them now.
    #[inline(always)]
    pub(crate) unsafe fn put_tokens(&self, y: Out, token: usize, row: usize, products: &[f32]) {
        // SAFETY: the caller vouches for the place and for neighbours of as many.
        let y = unsafe { std::slice::from_raw_parts_mut(y.place(token, row).0, products.len()) };
        if self.is_plain() {
            y.copy_from_slice(products);
        } else {
            y.iter_mut().zip(products).for_each(|(y, &product)| *y = self.apply(*y, row, product));
        }
    }

    /// Lets `product` write a plain product, then does the rest: for products that have no epilogue of their own.
    pub(crate) fn after(&self, y: &mut ArrayRef2<f32>, product: impl FnOnce(&mut ArrayRef2<f32>)) {
        if self.is_plain() {
            return product(y);
        }
        let before = self.accumulate.then(|| y.to_owned());
        product(y);
        for ((t, r), y) in y.indexed_iter_mut() {
            *y = self.apply(before.as_ref().map_or(0.0, |b| b[[t, r]]), r, *y);
        }
    }

    fn apply(&self, y: f32, row: usize, product: f32) -> f32 {
        let biased = self.bias.map_or(product, |bias| product + bias[row]);
        let value = self.activation.map_or(biased, |activation| activation(biased));
        if self.accumulate { y + value } else { value }
    }

    /// Whether the product is added to y as it is.
    pub(crate) fn is_sum(&self) -> bool {
        self.bias.is_none() && self.activation.is_none() && self.accumulate
    }

    /// Whether a plain store is all that is asked for.
    pub(crate) fn is_plain(&self) -> bool {
        self.bias.is_none() && self.activation.is_none() && !self.accumulate
    }
}

/// The entries of y, which tasks write apart from one another.
#[derive(Clone, Copy)]
pub(crate) struct Out {
    y: *mut f32,
    strides: (isize, isize),
}

// SAFETY: a pointer with strides; whoever writes through it promises to keep apart.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    pub(crate) fn new(y: &mut ArrayRef2<f32>) -> Self {
        let strides = (y.strides()[0], y.strides()[1]);
        Out { y: y.as_mut_ptr(), strides }
    }

    /// Whether the outputs of a token are neighbours.
    pub(crate) fn is_row_major(self) -> bool {
        self.strides.1 == 1
    }

    /// Whether the tokens of an output are neighbours, and its outputs are not.
    pub(crate) fn is_column_major(self) -> bool {
        self.strides.0 == 1 && self.strides.1 != 1
    }

    /// Where the entry of a token and an output is, and how far it is to the next token.
    ///
    /// # Safety
    /// Both lie within y.
    #[inline(always)]
    pub(crate) unsafe fn place(self, token: usize, row: usize) -> (*mut f32, isize) {
        // SAFETY: the strides are those of y, and the caller keeps within it.
        let to = unsafe { self.y.offset(token as isize * self.strides.0 + row as isize * self.strides.1) };
        (to, self.strides.0)
    }

    /// The entry of a token and an output.
    ///
    /// # Safety
    /// Both lie within y, and nobody else uses this entry now.
    #[inline(always)]
    pub(crate) unsafe fn at<'a>(self, token: usize, row: usize) -> &'a mut f32 {
        // SAFETY: the caller keeps within y.
        unsafe { &mut *self.place(token, row).0 }
    }
}
