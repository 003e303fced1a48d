"""BibTeX of the papers and libraries that a manuscript about a run cites."""

from __future__ import annotations

BIBTEX = {
    "hu2022lora": """@inproceedings{hu2022lora,
  title     = {{LoRA}: Low-Rank Adaptation of Large Language Models},
  author    = {Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and Li, Yuanzhi and
               Wang, Shean and Wang, Lu and Chen, Weizhu},
  booktitle = {International Conference on Learning Representations},
  year      = {2022},
  note      = {arXiv:2106.09685 (2021)}
}""",
    "peft": """@misc{peft,
  title        = {{PEFT}: State-of-the-art Parameter-Efficient Fine-Tuning methods},
  author       = {Mangrulkar, Sourab and Gugger, Sylvain and Debut, Lysandre and Belkada, Younes and Paul, Sayak and
                  Bossan, Benjamin},
  howpublished = {\\url{https://github.com/huggingface/peft}},
  year         = {2022}
}""",
    "loshchilov2019adamw": """@inproceedings{loshchilov2019adamw,
  title     = {Decoupled Weight Decay Regularization},
  author    = {Loshchilov, Ilya and Hutter, Frank},
  booktitle = {International Conference on Learning Representations},
  year      = {2019},
  note      = {arXiv:1711.05101}
}""",
    "efron1993bootstrap": """@book{efron1993bootstrap,
  title     = {An Introduction to the Bootstrap},
  author    = {Efron, Bradley and Tibshirani, Robert J.},
  publisher = {Chapman and Hall},
  address   = {New York},
  year      = {1993}
}""",
    "wolf2020transformers": """@inproceedings{wolf2020transformers,
  title     = {Transformers: State-of-the-Art Natural Language Processing},
  author    = {Wolf, Thomas and Debut, Lysandre and Sanh, Victor and Chaumond, Julien and Delangue, Clement and
               Moi, Anthony and Cistac, Pierric and Rault, Tim and Louf, R{\\'e}mi and Funtowicz, Morgan and
               Davison, Joe and Shleifer, Sam and von Platen, Patrick and Ma, Clara and Jernite, Yacine and
               Plu, Julien and Xu, Canwen and Le Scao, Teven and Gugger, Sylvain and Drame, Mariama and
               Lhoest, Quentin and Rush, Alexander M.},
  booktitle = {Proceedings of the 2020 Conference on Empirical Methods in Natural Language Processing:
               System Demonstrations},
  pages     = {38--45},
  year      = {2020}
}""",
    "pedregosa2011scikit": """@article{pedregosa2011scikit,
  title   = {Scikit-learn: Machine Learning in {P}ython},
  author  = {Pedregosa, F. and Varoquaux, G. and Gramfort, A. and Michel, V. and Thirion, B. and Grisel, O. and
             Blondel, M. and Prettenhofer, P. and Weiss, R. and Dubourg, V. and Vanderplas, J. and Passos, A. and
             Cournapeau, D. and Brucher, M. and Perrot, M. and Duchesnay, E.},
  journal = {Journal of Machine Learning Research},
  volume  = {12},
  pages   = {2825--2830},
  year    = {2011}
}""",
    "hinton2015distilling": """@misc{hinton2015distilling,
  title  = {Distilling the Knowledge in a Neural Network},
  author = {Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff},
  year   = {2015},
  note   = {arXiv:1503.02531}
}""",
    "sanh2019distilbert": """@misc{sanh2019distilbert,
  title  = {{DistilBERT}, a distilled version of {BERT}: smaller, faster, cheaper and lighter},
  author = {Sanh, Victor and Debut, Lysandre and Chaumond, Julien and Wolf, Thomas},
  year   = {2019},
  note   = {arXiv:1910.01108}
}""",
    "kirkpatrick2017ewc": """@article{kirkpatrick2017ewc,
  title   = {Overcoming catastrophic forgetting in neural networks},
  author  = {Kirkpatrick, James and Pascanu, Razvan and Rabinowitz, Neil and Veness, Joel and Desjardins, Guillaume and
             Rusu, Andrei A. and Milan, Kieran and Quan, John and Ramalho, Tiago and Grabska-Barwinska, Agnieszka and
             Hassabis, Demis and Clopath, Claudia and Kumaran, Dharshan and Hadsell, Raia},
  journal = {Proceedings of the National Academy of Sciences},
  volume  = {114},
  number  = {13},
  pages   = {3521--3526},
  year    = {2017},
  note    = {arXiv:1612.00796}
}""",
    "huszar2018quadratic": """@article{huszar2018quadratic,
  title   = {Note on the quadratic penalties in elastic weight consolidation},
  author  = {Husz{\\'a}r, Ferenc},
  journal = {Proceedings of the National Academy of Sciences},
  volume  = {115},
  number  = {11},
  pages   = {E2496--E2497},
  year    = {2018},
  note    = {arXiv:1712.03847}
}""",
    "lopezpaz2017gem": """@inproceedings{lopezpaz2017gem,
  title     = {Gradient Episodic Memory for Continual Learning},
  author    = {Lopez-Paz, David and Ranzato, Marc'Aurelio},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {30},
  year      = {2017},
  note      = {arXiv:1706.08840}
}""",
    "chaudhry2018riemannian": """@inproceedings{chaudhry2018riemannian,
  title     = {Riemannian Walk for Incremental Learning: Understanding Forgetting and Intransigence},
  author    = {Chaudhry, Arslan and Dokania, Puneet K. and Ajanthan, Thalaiyasingam and Torr, Philip H. S.},
  booktitle = {European Conference on Computer Vision},
  year      = {2018},
  note      = {arXiv:1801.10112}
}""",
    "howard2018ulmfit": """@inproceedings{howard2018ulmfit,
  title     = {Universal Language Model Fine-tuning for Text Classification},
  author    = {Howard, Jeremy and Ruder, Sebastian},
  booktitle = {Proceedings of the 56th Annual Meeting of the Association for Computational Linguistics},
  year      = {2018},
  note      = {arXiv:1801.06146}
}""",
    "houlsby2019adapters": """@inproceedings{houlsby2019adapters,
  title     = {Parameter-Efficient Transfer Learning for {NLP}},
  author    = {Houlsby, Neil and Giurgiu, Andrei and Jastrzebski, Stanislaw and Morrone, Bruna and
               de Laroussilhe, Quentin and Gesmundo, Andrea and Attariyan, Mona and Gelly, Sylvain},
  booktitle = {Proceedings of the 36th International Conference on Machine Learning},
  pages     = {2790--2799},
  year      = {2019},
  note      = {arXiv:1902.00751}
}""",
    "pfeiffer2021adapterfusion": """@inproceedings{pfeiffer2021adapterfusion,
  title     = {{AdapterFusion}: Non-Destructive Task Composition for Transfer Learning},
  author    = {Pfeiffer, Jonas and Kamath, Aishwarya and R{\\"u}ckl{\\'e}, Andreas and Cho, Kyunghyun and
               Gurevych, Iryna},
  booktitle = {Proceedings of the 16th Conference of the European Chapter of the Association for Computational
               Linguistics: Main Volume},
  pages     = {487--503},
  year      = {2021},
  note      = {arXiv:2005.00247}
}""",
    "benzaken2022bitfit": """@inproceedings{benzaken2022bitfit,
  title     = {{BitFit}: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models},
  author    = {Ben Zaken, Elad and Goldberg, Yoav and Ravfogel, Shauli},
  booktitle = {Proceedings of the 60th Annual Meeting of the Association for Computational Linguistics},
  year      = {2022},
  note      = {arXiv:2106.10199 (2021)}
}""",
    "liu2024dora": """@inproceedings{liu2024dora,
  title     = {{DoRA}: Weight-Decomposed Low-Rank Adaptation},
  author    = {Liu, Shih-Yang and Wang, Chien-Yi and Yin, Hongxu and Molchanov, Pavlo and Wang, Yu-Chiang Frank and
               Cheng, Kwang-Ting and Chen, Min-Hung},
  booktitle = {Proceedings of the 41st International Conference on Machine Learning},
  year      = {2024},
  note      = {arXiv:2402.09353}
}""",
    "hayou2024loraplus": """@inproceedings{hayou2024loraplus,
  title     = {{LoRA+}: Efficient Low Rank Adaptation of Large Models},
  author    = {Hayou, Soufiane and Ghosh, Nikhil and Yu, Bin},
  booktitle = {Proceedings of the 41st International Conference on Machine Learning},
  year      = {2024},
  note      = {arXiv:2402.12354}
}""",
    "liu2022ia3": """@inproceedings{liu2022ia3,
  title     = {Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning},
  author    = {Liu, Haokun and Tam, Derek and Muqeeth, Mohammed and Mohta, Jay and Huang, Tenghao and Bansal, Mohit and
               Raffel, Colin},
  booktitle = {Advances in Neural Information Processing Systems 35},
  year      = {2022},
  note      = {arXiv:2205.05638}
}""",
    "li2021prefix": """@inproceedings{li2021prefix,
  title     = {Prefix-Tuning: Optimizing Continuous Prompts for Generation},
  author    = {Li, Xiang Lisa and Liang, Percy},
  booktitle = {Proceedings of the 59th Annual Meeting of the Association for Computational Linguistics},
  year      = {2021},
  note      = {arXiv:2101.00190}
}""",
    "lester2021prompt": """@inproceedings{lester2021prompt,
  title     = {The Power of Scale for Parameter-Efficient Prompt Tuning},
  author    = {Lester, Brian and Al-Rfou, Rami and Constant, Noah},
  booktitle = {Proceedings of the 2021 Conference on Empirical Methods in Natural Language Processing},
  year      = {2021},
  note      = {arXiv:2104.08691}
}""",
    "dettmers2023qlora": """@inproceedings{dettmers2023qlora,
  title     = {{QLoRA}: Efficient Finetuning of Quantized {LLMs}},
  author    = {Dettmers, Tim and Pagnoni, Artidoro and Holtzman, Ari and Zettlemoyer, Luke},
  booktitle = {Advances in Neural Information Processing Systems 36},
  year      = {2023},
  note      = {arXiv:2305.14314}
}""",
    "polyak1992averaging": """@article{polyak1992averaging,
  title   = {Acceleration of Stochastic Approximation by Averaging},
  author  = {Polyak, Boris T. and Juditsky, Anatoli B.},
  journal = {SIAM Journal on Control and Optimization},
  volume  = {30},
  number  = {4},
  pages   = {838--855},
  year    = {1992},
  doi     = {10.1137/0330046}
}""",
    "kumar2022lpft": """@inproceedings{kumar2022lpft,
  title     = {Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution},
  author    = {Kumar, Ananya and Raghunathan, Aditi and Jones, Robbie and Ma, Tengyu and Liang, Percy},
  booktitle = {International Conference on Learning Representations},
  year      = {2022},
  note      = {arXiv:2202.10054}
}""",
    "lee2020mixout": """@inproceedings{lee2020mixout,
  title     = {Mixout: Effective Regularization to Finetune Large-scale Pretrained Language Models},
  author    = {Lee, Cheolhyoung and Cho, Kyunghyun and Kang, Wanmo},
  booktitle = {International Conference on Learning Representations},
  year      = {2020},
  note      = {arXiv:1909.11299}
}""",
    "li2018l2sp": """@inproceedings{li2018l2sp,
  title     = {Explicit Inductive Bias for Transfer Learning with Convolutional Networks},
  author    = {Li, Xuhong and Grandvalet, Yves and Davoine, Franck},
  booktitle = {Proceedings of the 35th International Conference on Machine Learning},
  year      = {2018},
  note      = {arXiv:1802.01483}
}""",
}
"""What a manuscript may cite, by key."""

OF_CONSOLIDATION = ("kirkpatrick2017ewc", "huszar2018quadratic")
"""The papers of weights that are held by what they mattered to earlier tasks, and of one penalty for all tasks."""

OF_AVERAGES = "polyak1992averaging"
"""The paper of running means of weights."""

OF_OPTIONS = {
    "layer_decay": "howard2018ulmfit",
    "head_first": "kumar2022lpft",
    "mixout": "lee2020mixout",
    "l2_sp": "li2018l2sp",
    "b_rate_factor": "hayou2024loraplus",
}
"""The papers of what a method can be joined with."""
