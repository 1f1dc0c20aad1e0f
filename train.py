"""Train a policy: python train.py experiment=lora_r32"""

from vlakit.cli.train import main

if __name__ == "__main__":
    main()
