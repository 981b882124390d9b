//! One value of a table, and rows made of Rust values.

/// Digits after the point that a float shows when none were chosen.
const DIGITS: usize = 4;

/// One typed value of a [`Table`](super::Table).
///
/// ```
/// use lacuna::report::Cell;
///
/// assert_eq!(Cell::from(0.5).show(), "0.5000");
/// assert_eq!(Cell::float(93.456, 1).show(), "93.5");
/// assert_eq!(Cell::float(2e-7, 3).show(), "2.000e-7"); // never a false 0.000
/// assert_eq!(Cell::from(None::<i32>).show(), "–");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Words, or anything already formatted.
    Text(String),
    /// A count.
    Integer(i128),
    /// A measured number.
    Float {
        /// The number; CSV keeps all of it.
        value: f64,
        /// Digits after the point where people read it.
        digits: usize,
    },
    /// Nothing was measured.
    Missing,
}

impl Cell {
    /// A number that shows this many digits after the point.
    pub fn float(value: f64, digits: usize) -> Self {
        Cell::Float { value, digits }
    }

    /// The cell as people read it: floats with their digits, `–` where nothing was measured.
    ///
    /// A float that its digits would show as zero although it is not, and one of 10¹² or more, is written with an exponent.
    pub fn show(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Integer(count) => count.to_string(),
            Cell::Float { value, digits } => show_float(*value, *digits),
            Cell::Missing => "–".to_string(),
        }
    }

    /// The cell as machines read it: floats so that parsing gives the same bits, nothing where nothing was measured.
    ///
    /// ```
    /// use lacuna::report::Cell;
    ///
    /// let third = Cell::float(1.0 / 3.0, 2);
    /// assert_eq!(third.exact(), "0.3333333333333333");
    /// assert_eq!(third.exact().parse(), Ok(1.0 / 3.0));
    /// ```
    pub fn exact(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Integer(count) => count.to_string(),
            Cell::Float { value, .. } => format!("{value:?}"),
            Cell::Missing => String::new(),
        }
    }

    /// The cell as a number: integers, floats, and text that reads as one, as it does after
    /// [`Table::from_csv`](super::Table::from_csv).
    pub fn number(&self) -> Option<f64> {
        match self {
            Cell::Text(text) => text.trim().parse().ok(),
            Cell::Integer(count) => Some(*count as f64),
            Cell::Float { value, .. } => Some(*value),
            Cell::Missing => None,
        }
    }

    /// Whether the cell stands at the right of its column.
    pub(super) fn is_numeric(&self) -> bool {
        matches!(self, Cell::Integer(_) | Cell::Float { .. })
    }
}

fn show_float(value: f64, digits: usize) -> String {
    let rounds_to_zero = value != 0.0 && value.abs() < 0.5 * 10f64.powi(-(digits.min(300) as i32));
    if value.is_finite() && (rounds_to_zero || value.abs() >= 1e12) {
        return format!("{value:.digits$e}");
    }
    let shown = format!("{value:.digits$}");
    if value == 0.0 { shown.replace('-', "") } else { shown }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_string())
    }
}

impl From<&String> for Cell {
    fn from(text: &String) -> Self {
        Cell::Text(text.clone())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

impl From<bool> for Cell {
    /// `yes` or `no`, as in the column *holds?*.
    fn from(holds: bool) -> Self {
        Cell::from(if holds { "yes" } else { "no" })
    }
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Cell::float(value, DIGITS)
    }
}

impl From<f32> for Cell {
    fn from(value: f32) -> Self {
        Cell::float(f64::from(value), DIGITS)
    }
}

macro_rules! cell_from_integer {
    ($($integer:ty),*) => {$(
        impl From<$integer> for Cell {
            fn from(count: $integer) -> Self {
                Cell::Integer(count as i128)
            }
        }
    )*};
}
cell_from_integer!(i32, i64, isize, u8, u16, u32, u64, usize);

impl<C: Into<Cell>> From<Option<C>> for Cell {
    /// `None` is a missing cell.
    fn from(value: Option<C>) -> Self {
        value.map_or(Cell::Missing, Into::into)
    }
}

/// What can be a row of a [`Table`](super::Table): an array or a `Vec` of one type, or a tuple of up to twelve types.
pub trait IntoRow {
    /// The cells from left to right.
    fn into_row(self) -> Vec<Cell>;
}

impl<C: Into<Cell>, const N: usize> IntoRow for [C; N] {
    fn into_row(self) -> Vec<Cell> {
        self.into_iter().map(Into::into).collect()
    }
}

impl<C: Into<Cell>> IntoRow for Vec<C> {
    fn into_row(self) -> Vec<Cell> {
        self.into_iter().map(Into::into).collect()
    }
}

macro_rules! row_from_tuple {
    ($first:ident $($rest:ident)*) => {
        impl<$first: Into<Cell>, $($rest: Into<Cell>),*> IntoRow for ($first, $($rest,)*) {
            #[allow(non_snake_case, reason = "the type parameters name the values too")]
            fn into_row(self) -> Vec<Cell> {
                let ($first, $($rest,)*) = self;
                vec![$first.into(), $($rest.into()),*]
            }
        }
        row_from_tuple!($($rest)*);
    };
    () => {};
}
row_from_tuple!(A B C D E F G H I J K L);
