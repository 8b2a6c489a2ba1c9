//! All states of a small world, and walks through the real one that try everything in each.

use std::collections::{HashMap, VecDeque};

use crate::operation::Op;
use crate::reference::{Reference, Shape, State, Symmetry};
use crate::world::{Machine, World, with_world};

/// How many steps a world lives, so that what one step leaves behind is met by others.
const STEPS: usize = 2000;
/// After so many steps guests give back what their devices need no more.
const STEPS_BETWEEN_TIDYINGS: usize = 50;

/// What an operation does in a state.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// The operation.
    pub op: Op,
    /// The state behind it.
    pub to: usize,
    /// It is refused.
    pub is_refused: bool,
}

/// All states of a world, from nothing on, breadth first; those that differ only in which place is
/// which are one.
#[derive(Debug)]
pub struct Graph {
    shape: Shape,
    symmetry: Symmetry,
    places: HashMap<State, usize>,
    /// Every operation that is possible in each state.
    pub edges: Vec<Vec<Edge>>,
}

/// How much there is, and was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// States.
    pub states: usize,
    /// Operations in them.
    pub tried: usize,
    /// Of these: refused, with nothing changed.
    pub refused: usize,
    /// Of these: leading to another state.
    pub changing: usize,
}

impl Graph {
    /// All states that `ops` lead to.
    pub fn explore(shape: &Shape, ops: &[Op]) -> Self {
        let mut graph = Self {
            shape: shape.clone(),
            symmetry: Symmetry::new(shape),
            places: HashMap::new(),
            edges: Vec::new(),
        };
        let mut queue = VecDeque::new();
        let nothing = Reference::new(shape.clone()).state;
        graph.place(nothing, &mut queue);
        while let Some(state) = queue.pop_front() {
            let mut edges = Vec::new();
            for &op in ops {
                let mut reference = Reference::at(shape.clone(), state.clone());
                if !reference.is_possible(op) {
                    continue;
                }
                let is_refused = !reference.apply(op).is_empty();
                let to = graph.place(reference.state, &mut queue);
                edges.push(Edge { op, to, is_refused });
            }
            graph.edges.push(edges);
        }
        graph
    }

    fn place(&mut self, state: State, queue: &mut VecDeque<State>) -> usize {
        let (state, _) = self.symmetry.canonical(&state);
        let next = self.places.len();
        *self.places.entry(state).or_insert_with_key(|state| {
            queue.push_back(state.clone());
            next
        })
    }

    /// How much there is.
    pub fn tally(&self) -> Tally {
        let all = || {
            let edges = self.edges.iter().enumerate();
            edges.flat_map(|(from, edges)| edges.iter().map(move |edge| (from, edge)))
        };
        Tally {
            states: self.edges.len(),
            tried: all().count(),
            refused: all().filter(|(_, edge)| edge.is_refused).count(),
            changing: all().filter(|(from, edge)| edge.to != *from).count(),
        }
    }

    /// Does every operation in every `parts`th state, from state number `part` on, on real worlds;
    /// how much was done.
    ///
    /// # Errors
    ///
    /// What differs, in words, and the operations of that world up to there.
    pub fn walk(
        &self,
        machine: Machine,
        (part, parts): (usize, usize),
    ) -> Result<Tally, (String, Vec<Op>)> {
        let mut left: Vec<Vec<Edge>> = self.edges.clone();
        for (state, edges) in left.iter_mut().enumerate() {
            if state % parts != part {
                edges.clear();
            }
        }
        let mut done = Tally {
            states: left.iter().filter(|it| !it.is_empty()).count(),
            ..Tally::default()
        };
        while left.iter().any(|it| !it.is_empty()) {
            with_world(&self.shape, machine, |world| {
                let mut walk = Walk {
                    graph: self,
                    reference: Reference::new(self.shape.clone()),
                    world,
                    path: Vec::new(),
                    ops: Vec::new(),
                };
                let outcome = walk.go(&mut left, &mut done);
                outcome.map_err(|differs| (differs, walk.ops))
            })?;
        }
        Ok(done)
    }

    /// The way to the nearest state in which something is left to do, the last step first.
    fn way(&self, from: usize, left: &[Vec<Edge>]) -> Vec<(usize, Op)> {
        let mut came = HashMap::from([(from, None)]);
        let mut queue = VecDeque::from([from]);
        while let Some(at) = queue.pop_front() {
            if !left[at].is_empty() {
                let mut way = Vec::new();
                let mut state = at;
                while let Some((before, op)) = came[&state] {
                    way.push((before, op));
                    state = before;
                }
                return way;
            }
            for edge in &self.edges[at] {
                came.entry(edge.to).or_insert_with(|| {
                    queue.push_back(edge.to);
                    Some((at, edge.op))
                });
            }
        }
        Vec::new()
    }
}

/// One world on its way.
struct Walk<'g, 'w, 'p> {
    graph: &'g Graph,
    reference: Reference,
    world: &'w mut World<'p>,
    /// What leads to the next state that is of interest, the last step first.
    path: Vec<(usize, Op)>,
    ops: Vec<Op>,
}

impl Walk<'_, '_, '_> {
    fn go(&mut self, left: &mut [Vec<Edge>], done: &mut Tally) -> Result<(), String> {
        for step in 0..STEPS {
            let (state, renaming) = self.graph.symmetry.canonical(&self.reference.state);
            let at = self.graph.places[&state];
            // What changes nothing can all be done here.
            for edge in left[at].extract_if(.., |edge| edge.to == at) {
                let op = renaming.undo(edge.op);
                self.ops.push(op);
                self.world.step_in_place(op, &mut self.reference)?;
                done.tried += 1;
                done.refused += usize::from(edge.is_refused);
            }
            // Of those some did change which place is which.
            let (state, renaming) = self.graph.symmetry.canonical(&self.reference.state);
            let again = self.graph.places[&state];
            if again != at {
                return Err(format!("what changes nothing led from {at} to {again}"));
            }
            let op = match left[at].pop() {
                Some(edge) => {
                    self.path.clear();
                    done.tried += 1;
                    done.refused += usize::from(edge.is_refused);
                    done.changing += 1;
                    edge.op
                }
                None => {
                    if self.path.last().is_none_or(|(from, _)| *from != at) {
                        self.path = self.graph.way(at, left);
                    }
                    let Some((_, op)) = self.path.pop() else {
                        break;
                    };
                    op
                }
            };
            let op = renaming.undo(op);
            self.ops.push(op);
            self.world.step(op, &mut self.reference)?;
            if step % STEPS_BETWEEN_TIDYINGS == 0 {
                self.world.tidy()?;
            }
        }
        self.world.end(&mut self.reference)
    }
}
