//! The way down to an allocation: layers as frameworks have them, some of them through a `Box<dyn Fn>`.

use std::hint::black_box;
use std::marker::PhantomData;

/// What stands at the bottom.
pub trait Site {
    fn serve(&mut self);
}

/// One step down.
pub trait Layer<S> {
    fn enter(site: &mut S);
}

pub struct Bottom;
/// Calls the layer below it.
pub struct Plain<Below>(PhantomData<Below>);
/// Calls it through a function that is only known at run time.
pub struct Dynamic<Below>(PhantomData<Below>);

impl<S: Site> Layer<S> for Bottom {
    #[inline(never)]
    fn enter(site: &mut S) {
        site.serve();
        // Else the call above could become a jump, and this frame would be missing.
        black_box(());
    }
}

impl<S, Below: Layer<S>> Layer<S> for Plain<Below> {
    #[inline(never)]
    fn enter(site: &mut S) {
        Below::enter(site);
        black_box(());
    }
}

impl<S, Below: Layer<S>> Layer<S> for Dynamic<Below> {
    #[inline(never)]
    fn enter(site: &mut S) {
        // A closure without captures takes no memory.
        let deeper: Box<dyn Fn(&mut S)> = black_box(Box::new(|site: &mut S| Below::enter(site)));
        deeper(site);
        black_box(());
    }
}

/// Layers from the outermost on: `p` is plain, `d` dynamic.
macro_rules! layers {
    () => { $crate::descent::Bottom };
    (p $($rest:tt)*) => { $crate::descent::Plain<layers!($($rest)*)> };
    (d $($rest:tt)*) => { $crate::descent::Dynamic<layers!($($rest)*)> };
}
pub(crate) use layers;
