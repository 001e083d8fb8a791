//! Who makes the next step in the toy, and how long it goes on.

use fsm::{Input, NodeName, input::DrainReport, time::Seconds};

use super::{News, Toy};

#[derive(Clone, Debug)]
enum Turn {
    News,
    Answer,
    Drain(NodeName),
    Host(NodeName),
}

impl Toy {
    /// Feeds one input and does what it asks for. False if the operator was killed.
    pub fn feed(&mut self, input: Input) -> bool {
        let commands = self.rollout.handle(self.now, input.clone());
        self.journal.push((self.now, input, commands.clone()));
        self.check_sums();
        for command in commands {
            self.commands.push(command.clone());
            if !self.obey(command) {
                self.crashes += 1;
                self.log.push(format!("killed: {:?}", self.crash));
                self.crash = None;
                self.start();
                return false;
            }
        }
        true
    }

    fn check_sums(&self) {
        for name in self.pools.keys() {
            if let Some(sum) = self.rollout.sum(name) {
                assert_eq!(sum, &sum.recount());
            }
        }
    }

    fn random(&mut self, below: usize) -> usize {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.seed >> 33) as usize) % below
    }

    /// One step of somebody who can make one. False if nobody can.
    pub fn step(&mut self) -> bool {
        let mut turns: Vec<Turn> = Vec::new();
        turns.extend((!self.news.is_empty()).then_some(Turn::News));
        turns.extend((!self.answers.is_empty()).then_some(Turn::Answer));
        turns.extend(
            self.drains
                .iter()
                .filter(|(_, drain)| !drain.blocked)
                .map(|(name, _)| Turn::Drain(name.clone())),
        );
        turns.extend(
            self.hosts
                .keys()
                .filter(|name| self.has_work(name))
                .map(|name| Turn::Host(name.clone())),
        );
        if turns.is_empty() {
            return false;
        }
        let turn = self.random(turns.len());
        self.now.0 += 100;
        match turns.swap_remove(turn) {
            Turn::News => self.deliver(),
            Turn::Answer => {
                let answer = self.answers.pop_front().unwrap();
                self.feed(answer);
            }
            Turn::Drain(name) => {
                let drain = self.drains.remove(&name).unwrap();
                self.drained.insert(name.clone());
                self.feed(Input::Drain {
                    node: name,
                    attempt: drain.attempt,
                    report: DrainReport::Done,
                });
            }
            Turn::Host(name) => self.host_step(&name),
        }
        true
    }

    fn deliver(&mut self) {
        let news = self.news.pop_front().unwrap();
        let version = self.versions.entry(news.clone()).or_default();
        version.1 = version.0;
        let input = match news {
            News::Node(name) => Input::Node(name.clone(), self.nodes.get(&name).cloned()),
            News::Bootc(name) => Input::BootcNode(name.clone(), self.bootc.get(&name).cloned()),
            News::Pool(name) => Input::Pool(name.clone(), self.pools.get(&name).cloned()),
        };
        self.feed(input);
    }

    /// Delivers all news and answers; nobody else makes a step.
    pub fn settle_news(&mut self) {
        while !self.news.is_empty() || !self.answers.is_empty() {
            if !self.news.is_empty() {
                self.deliver();
            } else if let Some(answer) = self.answers.pop_front() {
                self.feed(answer);
            }
        }
    }

    /// Runs until nobody can make a step; timers are left alone.
    pub fn settle(&mut self) {
        for _ in 0..20_000 {
            if !self.step() {
                return;
            }
        }
        self.is_restless();
    }

    /// Runs with time passing until nothing happens for `quiet` seconds.
    pub fn run(&mut self, quiet: u32) {
        for _ in 0..2_000 {
            self.settle();
            let end = self.now + Seconds(quiet);
            match self.wake.filter(|at| *at <= end) {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.wake = None;
                    self.feed(Input::Tick);
                }
                None => return,
            }
        }
        self.is_restless();
    }

    fn is_restless(&self) -> ! {
        let tail = self.log.len().saturating_sub(40);
        let last = self.commands.len().saturating_sub(6);
        println!("{:?}", &self.commands[last..]);
        panic!("it does not come to rest:\n{}", self.log[tail..].join("\n"));
    }

    /// Lets time pass.
    pub fn pass(&mut self, seconds: u32) {
        let end = self.now + Seconds(seconds);
        for _ in 0..10_000 {
            self.settle();
            match self.wake.filter(|at| *at <= end) {
                Some(at) => {
                    self.now = self.now.max(at);
                    self.wake = None;
                    self.feed(Input::Tick);
                }
                None => break,
            }
        }
        self.now = self.now.max(end);
        self.settle();
    }

    /// Runs until `when` holds; says whether it ever did.
    pub fn until(&mut self, when: impl Fn(&Self) -> bool) -> bool {
        for _ in 0..20_000 {
            if when(self) {
                return true;
            }
            if !self.step() {
                match self.wake {
                    Some(at) if at <= self.now + Seconds(7200) => {
                        self.now = self.now.max(at);
                        self.wake = None;
                        self.feed(Input::Tick);
                    }
                    _ => return when(self),
                }
            }
        }
        false
    }
}
