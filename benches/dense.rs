//! Dense products: every one that is linked, and the one that `linalg::gemm` takes, in turns.
//!
//! ```text
//! cargo bench --bench dense -- [--threads N] [--seconds S] [--shape OUTxIN,…] [--tokens T,…] [--kind y,dx,dw] [--blas FILE:SYMBOL,…]
//! ```
//!
//! `y = x · Wᵀ` is the linear layer, `dx = dy · W` the way back, `dw = dyᵀ · x` the gradient. Of each the shortest time and the lower quartile stand in a
//! table, in microseconds: on a machine that others use too, the shortest is what a product takes. `chosen / best` is how much longer the chosen
//! one took than the fastest of the others that take weights as they lie; a ratio above 1.1 is marked. `packed` is a weight packed before ([`PackedDense`]), `by 6`
//! this library's own kernel of up to six tokens, run again and again.
//!
//! `--blas` takes the `cblas_sgemm` of shared libraries of one's own into the turns, with integers of 32 bits, for example MKL's and OpenBLAS's, which are
//! told by their own variables to take as many threads:
//!
//! ```text
//! pip install --target peers mkl scipy-openblas32
//! MKL_THREADING_LAYER=SEQUENTIAL OPENBLAS_NUM_THREADS=1 cargo bench --bench dense -- --kind y \
//!     --blas …/libmkl_rt.so.2:cblas_sgemm,…/libscipy_openblas.so:scipy_cblas_sgemm
//! ```

use lacuna::linalg::{Product, Threads, gemm};
use lacuna::report::{Cell, Table, quantile};
use lacuna::rng::Seed;
use lacuna::sparse::{LinearOp, PackedDense};
use libloading::Library;
use ndarray::{Array2, ArrayView2, Axis};
use std::time::Instant;

/// `cblas_sgemm` with integers of 32 bits: order, turns, sizes, then factors and arrays with their strides.
type Sgemm = unsafe extern "C" fn(i32, i32, i32, i32, i32, i32, f32, *const f32, i32, *const f32, i32, f32, *mut f32, i32);

/// A product of another library.
struct Blas {
    name: String,
    sgemm: Sgemm,
    /// Keeps the code where it is.
    _library: Library,
}

impl Blas {
    /// The symbol of a file, `FILE:SYMBOL`.
    fn of(file: &str) -> Blas {
        let (path, symbol) = file.rsplit_once(':').unwrap_or_else(|| panic!("{file} is no FILE:SYMBOL"));
        let name =
            path.rsplit('/').next().unwrap_or(path).split('.').next().unwrap_or(path).trim_start_matches("lib").to_string();
        // SAFETY: who runs this benchmark names a library that may be loaded, and in it a `cblas_sgemm`.
        unsafe {
            let library = Library::new(path).unwrap_or_else(|e| panic!("{path}: {e}"));
            let sgemm = *library.get::<Sgemm>(symbol.as_bytes()).unwrap_or_else(|e| panic!("{path}: {symbol}: {e}"));
            Blas { name, sgemm, _library: library }
        }
    }

    /// `c <- a · b`, where a and b, or what they are the transposes of, and c are in standard layout.
    fn run(&self, a: &ArrayView2<'_, f32>, b: &ArrayView2<'_, f32>, c: &mut Array2<f32>) {
        let side = |x: &ArrayView2<'_, f32>| {
            let (turned, whole) = (x.strides()[1] != 1, if x.strides()[1] == 1 { x.view() } else { x.view().reversed_axes() });
            assert!(whole.is_standard_layout());
            (if turned { 112 } else { 111 }, whole.ncols() as i32)
        };
        let ((m, k), n) = (a.dim(), b.ncols());
        assert!(b.nrows() == k && c.dim() == (m, n) && c.is_standard_layout());
        let ((turn_a, lda), (turn_b, ldb)) = (side(a), side(b));
        let [m, n, k] = [m, n, k].map(|n| i32::try_from(n).expect("sizes of 31 bits"));
        // SAFETY: the shapes agree, and each array has as many numbers as its shape and stride say: asserted just now.
        unsafe { (self.sgemm)(101, turn_a, turn_b, m, n, k, 1.0, a.as_ptr(), lda, b.as_ptr(), ldb, 0.0, c.as_mut_ptr(), n) };
    }
}

type Run<'a> = Box<dyn FnMut(&mut Array2<f32>) + Send + 'a>;

/// What is said on the command line, or these.
struct Options {
    threads: usize,
    seconds: f64,
    shapes: Vec<(usize, usize)>,
    tokens: Vec<usize>,
    kinds: Vec<String>,
    blas: Vec<Blas>,
}

impl Options {
    fn read() -> Options {
        let mut options = Options {
            threads: 1,
            seconds: 0.5,
            shapes: vec![(4096, 4096), (576, 1536), (1536, 576), (3072, 768), (512, 512), (300, 784)],
            tokens: vec![1, 2, 4, 5, 6, 7, 8, 9, 12, 14, 16, 20, 24, 32, 48, 64, 100, 128, 512],
            kinds: ["y", "dx", "dw"].map(String::from).to_vec(),
            blas: Vec::new(),
        };
        // Cargo adds `--bench`.
        let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
        for pair in args.chunks(2) {
            let value = pair.get(1).unwrap_or_else(|| panic!("{} wants a value", pair[0]));
            let list = || value.split(',').map(str::to_string);
            let number = |n: String| n.parse().unwrap_or_else(|e| panic!("{n}: {e}"));
            match pair[0].as_str() {
                "--threads" => options.threads = number(value.clone()),
                "--seconds" => options.seconds = value.parse().unwrap_or_else(|e| panic!("{value}: {e}")),
                "--tokens" => options.tokens = list().map(number).collect(),
                "--kind" => options.kinds = list().collect(),
                "--shape" => {
                    let pair = |s: String| s.split_once('x').map(|(a, b)| (number(a.into()), number(b.into())));
                    options.shapes = list().map(|s| pair(s).expect("OUTxIN")).collect();
                }
                "--blas" => options.blas = list().map(|file| Blas::of(&file)).collect(),
                other => panic!("{other} is none of --threads, --seconds, --shape, --tokens, --kind, --blas"),
            }
        }
        options
    }
}

/// Seconds before a turn that are not timed.
const SETTLE: f64 = 4e-3;

/// Microseconds of each, in turns, for so many seconds and seven rounds at least.
fn times(runs: &mut [(&str, Run<'_>)], c: &mut Array2<f32>, seconds: f64) -> Vec<Vec<f64>> {
    let mut times = vec![Vec::new(); runs.len()];
    let begin = Instant::now();
    while times[0].len() < 14 || begin.elapsed().as_secs_f64() < seconds {
        for ((_, run), times) in runs.iter_mut().zip(&mut times) {
            // A last cache that others filled may take ten passes until it holds a weight: who reads what the one before it read would look faster.
            let settled = Instant::now();
            while settled.elapsed().as_secs_f64() < SETTLE {
                run(c);
            }
            for _ in 0..2 {
                let start = Instant::now();
                run(c);
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
    }
    times
}

fn main() {
    let options = Options::read();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build().unwrap();
    for kind in &options.kinds {
        for &(out, inputs) in &options.shapes {
            let (packs, others) = (kind == "y", options.blas.iter().map(|b| b.name.as_str()));
            let names: Vec<&str> = Product::ALL.iter().map(|p| p.name()).chain(packs.then_some("packed")).chain(others).collect();
            let timed = names.iter().flat_map(|name| [*name, "quartile"]);
            let mut table = Table::new(["tokens", "chosen", "µs"].into_iter().chain(timed).chain(["by 6", "chosen / best"]));
            for &tokens in &options.tokens {
                let mut stream = Seed(0).stream("bench");
                let [w, x, dy] =
                    [(out, inputs), (tokens, inputs), (tokens, out)].map(|(rows, cols)| stream.normal_array(rows, cols, 1.0));
                let (a, b): (ArrayView2<'_, f32>, ArrayView2<'_, f32>) = match kind.as_str() {
                    "y" => (x.view(), w.t()),
                    "dx" => (dy.view(), w.view()),
                    "dw" => (dy.t(), x.view()),
                    other => panic!("{other} is none of y, dx, dw"),
                };
                let mut c = Array2::zeros((a.nrows(), b.ncols()));
                let packed = PackedDense::new(if packs { &w } else { &c });
                let mut runs: Vec<(&str, Run<'_>)> = vec![("chosen", Box::new(|c| gemm(1.0, &a, &b, 0.0, c, Threads::Pool)))];
                for made in Product::ALL {
                    runs.push((made.name(), Box::new(move |c| made.run(1.0, &a, &b, 0.0, c, Threads::Pool))));
                }
                if packs {
                    runs.push(("packed", Box::new(|c| packed.apply_into(&x, c))));
                }
                runs.extend(options.blas.iter().map(|blas| {
                    let run: Run<'_> = Box::new(|c| blas.run(&a, &b, c));
                    (blas.name.as_str(), run)
                }));
                if kind == "y" && tokens > 6 {
                    runs.push((
                        "by 6",
                        Box::new(|c| {
                            let parts = a.axis_chunks_iter(Axis(0), 6).zip(c.axis_chunks_iter_mut(Axis(0), 6));
                            parts.for_each(|(a, mut c)| Product::Lacuna.run(1.0, &a, &b, 0.0, &mut c, Threads::Pool));
                        }),
                    ));
                }
                // All answers are those of the first.
                let mut first = c.clone();
                for (name, run) in &mut runs {
                    c.fill(f32::NAN);
                    run(&mut c);
                    if *name == "chosen" {
                        first.assign(&c);
                    }
                    let off =
                        (&c - &first).iter().fold(0.0f32, |most, d| if d.is_nan() { f32::INFINITY } else { most.max(d.abs()) });
                    assert!(
                        off < 1e-5 * (1.0 + a.ncols() as f32),
                        "{name}, {kind} of {out} x {inputs}, {tokens} tokens: off by {off}"
                    );
                }
                let times = pool.install(|| times(&mut runs, &mut c, options.seconds));
                let least: Vec<f64> = times.iter().map(|t| quantile(t, 0.0).unwrap()).collect();
                // The first is the chosen one; weights as they lie come next, and last what is none of the names.
                let best = least[1..=Product::ALL.len()].iter().copied().fold(f64::INFINITY, f64::min);
                let mut row = vec![Cell::from(tokens), Product::chosen(&a, &b).name().into(), Cell::float(least[0], 1)];
                for (least, times) in least[1..].iter().zip(&times[1..]).take(names.len()) {
                    row.push(Cell::float(*least, 1));
                    row.push(Cell::float(quantile(times, 0.25).unwrap(), 1));
                }
                row.push(least.get(1 + names.len()).map_or(Cell::Missing, |us| Cell::float(*us, 1)));
                row.push(format!("{:.2}{}", least[0] / best, if least[0] > 1.1 * best { " !" } else { "" }).into());
                table.row(row);
            }
            println!("{kind}, {out} x {inputs}, threads: {}\n{}", options.threads, table.to_text());
        }
    }
}
