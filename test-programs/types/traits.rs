//! Values behind trait objects. Says for each kind: its name, how many are live and the address of the first; ends when
//! its input does.

use std::io::{Read, Write};

trait Bid {
    fn price(&self) -> f64;
}

struct Campaign {
    words: [u64; 9],
    name: String,
}

struct Offer {
    words: [u64; 21],
}

impl Bid for Campaign {
    fn price(&self) -> f64 {
        self.words[0] as f64 + self.name.len() as f64
    }
}

impl Bid for Offer {
    fn price(&self) -> f64 {
        self.words[1] as f64
    }
}

fn main() {
    let mut bids: Vec<Box<dyn Bid>> = Vec::with_capacity(300);
    for index in 0..200 {
        bids.push(Box::new(Campaign { words: [index; 9], name: format!("campaign {index}") }));
    }
    for index in 0..100 {
        bids.push(Box::new(Offer { words: [index; 21] }));
    }
    let address = |index: usize| std::ptr::from_ref::<dyn Bid>(&*bids[index]).cast::<u8>();
    println!("type 200 {:p} Campaign", address(0));
    println!("type 100 {:p} Offer", address(200));
    println!("ready");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    println!("{}", bids.iter().map(|bid| bid.price()).sum::<f64>());
}
